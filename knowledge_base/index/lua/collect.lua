-- Looks after inserts of vectors that should be settled by now: what came for a revision that is not its fact's is
-- removed, what still waits is looked after later.
--
-- KEYS[1]  the sorted set of inserts
-- ARGV     now (ms), when to look again (ms), how many at most, prefix of facts' keys, prefix of passages' keys
-- Reply    how many were looked after

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, member in ipairs(due) do
  local fact_id, revision = string.match(member, '^(.*):([^:]*)$')
  local current = redis.call('HMGET', ARGV[4] .. fact_id, 'revision', 'indexed')
  if current[1] ~= revision then
    local passages = tonumber(string.match(revision, '(%d+)$'))
    for position = 0, passages - 1 do
      redis.call('DEL', ARGV[5] .. fact_id .. ':' .. revision .. ':' .. string.format('%d', position))
    end
    redis.call('ZREM', KEYS[1], member)
  elseif current[2] == '1' then
    redis.call('ZREM', KEYS[1], member)
  else
    redis.call('ZADD', KEYS[1], ARGV[2], member)
  end
end
return #due
