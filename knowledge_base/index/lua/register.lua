-- Records a namespace's first index generation, unless one is recorded.
--
-- KEYS[1]  the hash of the live generation
-- KEYS[2]  the sorted set of all facts
-- KEYS[3]  the sorted set of all documents
-- ARGV     model, dimension, how contents are cut
-- Reply    {number, model, dimension, build, "1" when nothing is stored yet}

local new = redis.call('EXISTS', KEYS[2], KEYS[3]) == 0
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'number', '1', 'model', ARGV[1], 'dimension', ARGV[2], 'cut', ARGV[3])
end
local recorded = redis.call('HMGET', KEYS[1], 'number', 'model', 'dimension', 'build')
recorded[5] = new and '1' or '0'
return recorded
