-- Takes back that a namespace was switched off, unless somebody else has switched it off since.
--
-- KEYS[1]  the hash of the live generation
-- ARGV     what stands in the place of its number, the token of whoever did it
-- Reply    1 when it is live again

local recorded = redis.call('HMGET', KEYS[1], 'number', 'off_by', 'number_before')
if recorded[1] ~= ARGV[1] or recorded[2] ~= ARGV[2] or not recorded[3] then return 0 end
redis.call('HSET', KEYS[1], 'number', recorded[3])
redis.call('HDEL', KEYS[1], 'number_before', 'off_by', 'off_for')
return 1
