-- Removes passages that are nothing but a vector: whose text and labels were removed while it was on its way.
--
-- KEYS     the passages
-- Reply    how many were removed

local removed = 0
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 and redis.call('HEXISTS', key, 'text') == 0 then
    removed = removed + redis.call('DEL', key)
  end
end
return removed
