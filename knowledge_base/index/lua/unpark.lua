-- Makes every parked fact due again.
--
-- KEYS[1]  the hash of parked facts
-- KEYS[2]  the sorted set of pending facts
-- ARGV     now (ms)
-- Reply    how many there were

local parked = redis.call('HKEYS', KEYS[1])
for _, fact_id in ipairs(parked) do redis.call('ZADD', KEYS[2], ARGV[1], fact_id) end
redis.call('DEL', KEYS[1])
return #parked
