-- Makes the next build of a generation's indices the live one, unless another one is by now.
--
-- KEYS[1]  the hash of the live generation
-- ARGV     number of the generation, the build that was found wanting, the build that is filled
-- Reply    the build that is live

local recorded = redis.call('HMGET', KEYS[1], 'number', 'build')
local live = recorded[2] or '1'
if recorded[1] == ARGV[1] and live == ARGV[2] then
  redis.call('HSET', KEYS[1], 'build', ARGV[3])
  return ARGV[3]
end
return live
