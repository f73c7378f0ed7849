-- Removes facts that have expired, with all that is counted of them.
--
-- KEYS[1]  the sorted set of facts that expire
-- ARGV[1]  request: root, now, number, most
-- Reply    how many were removed; request.most when there may be more

local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', request.now, 'LIMIT', 0, request.most)
for _, fact_id in ipairs(due) do
  local fact = read_fact(fact_id)
  if fact then remove_fact(fact_id, fact) else redis.call('ZREM', KEYS[1], fact_id) end
end
return #due
