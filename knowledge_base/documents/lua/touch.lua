-- Notes of a document that it is as its file is, which has another time now.
--
-- KEYS[1]  the document's key
-- ARGV[1]  request: root, now, number, version, seq, file
-- Reply    {"noted"} | {"conflict"}

local current = redis.call('HMGET', KEYS[1], 'version', 'seq')
if current[1] ~= request.version or current[2] ~= request.seq then return {'conflict'} end
redis.call('HSET', KEYS[1], 'file', request.file)
return {'noted'}
