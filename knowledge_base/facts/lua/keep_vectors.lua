-- Gives passages of a fact the vectors that their texts had before the cut changed.
--
-- KEYS[1]  the fact's key
-- KEYS     from the second on: passages
-- ARGV     revision that the fact must have, then text and vector of each passage
-- Reply    how many were written

if redis.call('HGET', KEYS[1], 'revision') ~= ARGV[1] then return 0 end
local written = 0
for at = 2, #KEYS do
  local text, vector = ARGV[2 * at - 2], ARGV[2 * at - 1]
  if redis.call('HGET', KEYS[at], 'text') == text and redis.call('HEXISTS', KEYS[at], 'vector') == 0 then
    redis.call('HSET', KEYS[at], 'vector', vector)
    written = written + 1
  end
end
return written
