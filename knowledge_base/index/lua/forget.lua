-- Takes facts off the record of what is pending, unless they exist.
--
-- KEYS[1]  the sorted set of pending facts
-- KEYS     from the second on: the facts' keys
-- ARGV     the facts' ids, in the same order
-- Reply    1

for at, fact_id in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[at + 1]) == 0 then redis.call('ZREM', KEYS[1], fact_id) end
end
return 1
