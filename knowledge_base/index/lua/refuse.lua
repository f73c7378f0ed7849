-- Puts a fact off that cannot be indexed, or parks it with the reason.
--
-- KEYS[1]  the sorted set of pending facts
-- KEYS[2]  the hash of attempts
-- KEYS[3]  the hash of parked facts
-- ARGV     fact id, now (ms), attempts after which it is parked, first pause (ms), longest pause (ms), reason
-- Reply    1 when it is parked, else 0

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local attempts = redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
if attempts >= tonumber(ARGV[3]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[3], ARGV[1], cjson.encode({reason = ARGV[6], attempts = attempts, since = ARGV[2]}))
  return 1
end
local pause = math.min(tonumber(ARGV[5]), tonumber(ARGV[4]) * 2 ^ (attempts - 1))
redis.call('ZADD', KEYS[1], string.format('%.0f', tonumber(ARGV[2]) + pause), ARGV[1])
return 0
