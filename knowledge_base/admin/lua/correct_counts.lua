-- Corrects counts that are still what they were when they were found wrong.
--
-- KEYS     the hash of each count
-- ARGV     field, value found ("" for none), value that it must have ("" for none), of each
-- Reply    for each 1 when it is as it must be now, else 0

local corrected = {}
for at, key in ipairs(KEYS) do
  local field, found, right = ARGV[3 * at - 2], ARGV[3 * at - 1], ARGV[3 * at]
  corrected[at] = 0
  if (redis.call('HGET', key, field) or '') == found then
    if right == '' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, right) end
    corrected[at] = 1
  end
end
return corrected
