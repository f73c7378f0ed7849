-- Ends a rebuild that is not to be finished: what it has built may be dropped at once.
--
-- KEYS[1]  the hash of the rebuild
-- ARGV[1]  request: root, token, lease (ms)
-- Reply    {"lost"} | {"given up"}

-- First what takes no memory: after it a server that has none left lets the other pass.
redis.call('UNLINK', KEYS[1], changed, root .. 'unembedded')
redis.call('ZADD', root .. 'retired', string.format('%.0f', now_ms()), next_number .. ':1')
return {'given up'}
