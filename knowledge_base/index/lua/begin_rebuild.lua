-- Begins a rebuild of a namespace's index, or takes over one whose owner is gone.
--
-- KEYS[1]  the hash of the live generation
-- KEYS[2]  the hash of the rebuild
-- KEYS[3]  the hash of counters
-- KEYS[4]  the sorted set of facts changed during it
-- KEYS[5]  the sorted set of generations that are to be dropped
-- KEYS[6]  the set of facts without vectors of the next generation
-- ARGV     token of the new owner, its lease (ms), model, dimension, how contents are cut, now (ms)
-- Reply    {"nothing"} where nothing was ever written | {"held", generation, done, total} while another owner's lease
--          lasts | {"begun" | "resumed" | "stale", generation, cursor, done, started}; stale: begun for another
--          model or cut

local live = redis.call('HGET', KEYS[1], 'number')
if not live then return {'nothing'} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = string.format('%.0f', now + tonumber(ARGV[2]))
local known = redis.call('HMGET', KEYS[2], 'number', 'owner', 'lease', 'base', 'model', 'dimension', 'cursor', 'done',
  'total', 'started', 'cut')
local numbered = known[1] and string.match(known[1], '^%d+$')
if redis.call('EXISTS', KEYS[2]) == 1 and (not numbered or known[4] ~= live) then
  -- The index that it was to replace is there no longer, or somebody else has written to the record.
  if numbered then redis.call('ZADD', KEYS[5], string.format('%.0f', now), known[1] .. ':1') end
  redis.call('DEL', KEYS[2], KEYS[4], KEYS[6])
  known[1] = false
end
if known[1] then
  if known[2] ~= ARGV[1] and (tonumber(known[3]) or 0) > now then
    return {'held', known[1], known[8] or '0', known[9] or '0'}
  end
  redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'lease', lease)
  local same = known[5] == ARGV[3] and known[6] == ARGV[4] and known[11] == ARGV[5]
  return {same and 'resumed' or 'stale', known[1], known[7] or '0', known[8] or '0', known[10] or ARGV[6]}
end
-- Numbers never come again: what an earlier rebuild has left behind must not be taken for a part of this one.
local last = math.max(tonumber(live), tonumber(redis.call('HGET', KEYS[3], 'generations') or '0'))
local number = string.format('%d', last + 1)
redis.call('HSET', KEYS[3], 'generations', number)
redis.call('HSET', KEYS[2], 'number', number, 'owner', ARGV[1], 'lease', lease, 'base', live, 'model', ARGV[3],
  'dimension', ARGV[4], 'cursor', '0', 'done', '0', 'total', '0', 'changes', '0', 'cut', ARGV[5], 'started', ARGV[6])
return {'begun', number, '0', '0', ARGV[6]}
