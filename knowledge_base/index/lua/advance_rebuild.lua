-- Keeps the lease of a rebuild and notes how far it is.
--
-- KEYS[1]  the hash of the rebuild
-- ARGV[1]  request: root, token, lease (ms), fields: what to note, by name
-- Reply    {"lost"} | {"renewed", facts that were changed and wait to be copied once more}

renew()
for name, value in pairs(request.fields) do redis.call('HSET', KEYS[1], name, value) end
return {'renewed', redis.call('ZCARD', changed)}
