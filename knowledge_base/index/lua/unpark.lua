-- Makes parked facts due again.
--
-- KEYS[1]  the hash of parked facts
-- KEYS[2]  the sorted set of pending facts
-- ARGV     now (ms), how many at most
-- Reply    how many; 0 when none is left

local some = redis.call('HSCAN', KEYS[1], 0, 'COUNT', ARGV[2])[2]
for at = 1, #some, 2 do
  redis.call('ZADD', KEYS[2], ARGV[1], some[at])
  redis.call('HDEL', KEYS[1], some[at])
end
return #some / 2
