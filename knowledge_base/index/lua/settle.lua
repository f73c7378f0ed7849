-- Settles an insert of vectors: the fact is indexed now, or the insert came too late and is taken back.
--
-- KEYS[1]  the fact's key
-- KEYS[2]  the sorted set of pending facts
-- KEYS[3]  the hash of attempts
-- KEYS[4]  the sorted set of inserts
-- KEYS[5]  the hash of parked facts
-- KEYS[6]  the hash of the live generation
-- KEYS[7]  the hash of a rebuild under way
-- KEYS[8]  the sorted set of facts changed during it
-- ARGV     fact id, revision, passages, prefix of the passages' keys up to the revision, number of the generation
-- Reply    1 when the fact is indexed, 0 when a vector is missing, -1 when the insert was taken back

local count = tonumber(ARGV[3])
local live = redis.call('HGET', KEYS[6], 'number')
if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[2] or (live and live ~= ARGV[5]) then
  for position = 0, count - 1 do redis.call('DEL', ARGV[4] .. position) end
  return -1
end
local missing = false
for position = 0, count - 1 do
  if redis.call('HEXISTS', ARGV[4] .. position, 'vector') == 0 then missing = true end
end
if missing then return 0 end
redis.call('HSET', KEYS[1], 'indexed', '1')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1] .. ':' .. ARGV[2])
if redis.call('EXISTS', KEYS[7]) == 1 then
  redis.call('ZADD', KEYS[8], redis.call('HINCRBY', KEYS[7], 'changes', 1), ARGV[1])
end
return 1
