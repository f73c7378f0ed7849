-- Leases facts that wait for their vectors, so that two processes do not embed the same.
--
-- KEYS[1]  the sorted set of pending facts
-- ARGV     now (ms), end of the lease (ms), how many at most
-- Reply    the ids

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, fact_id in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[2], fact_id) end
return due
