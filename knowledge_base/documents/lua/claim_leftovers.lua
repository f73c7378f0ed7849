-- Takes revisions whose parts are to be removed; those that were being written for too long are given up first.
--
-- KEYS[1]  the sorted set of revisions that are being written
-- KEYS[2]  the sorted set of those to be removed
-- ARGV     now (ms), when others may take them (ms), how many at most
-- Reply    what they are called

for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  redis.call('ZADD', KEYS[2], ARGV[1], member)
  redis.call('ZREM', KEYS[1], member)
end
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, member in ipairs(due) do redis.call('ZADD', KEYS[2], ARGV[2], member) end
return due
