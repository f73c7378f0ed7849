-- Settles vectors that were inserted into the generation that is being built.
--
-- KEYS[1]  the hash of the rebuild
-- ARGV[1]  request: root, token, lease (ms), facts: a list of {id, revision, stamp}
-- Reply    {"lost"} | {"settled", number of facts that have all of their vectors}
--
-- What came for a revision that is its fact's no longer is removed. A fact that lacks a vector is recorded, so that it
-- waits for it when this generation is live.

renew()
local whole = 0
for _, item in ipairs(request.facts) do
  local fact_id, revision, stamp = item[1], item[2], item[3]
  local passages = tonumber(string.match(revision, '(%d+)$'))
  local current = redis.call('HGET', root .. 'fact:' .. fact_id, 'revision')
  local lacks = false
  for position = 0, passages - 1 do
    local _, key = part_keys(fact_id, revision, position, passages)
    if current ~= revision then
      redis.call('DEL', key)
    elseif redis.call('HEXISTS', key, 'vector') == 0 then
      lacks = true
    end
  end
  if current == revision then
    redis.call(lacks and 'SADD' or 'SREM', root .. 'unembedded', fact_id)
    if not lacks then whole = whole + 1 end
  end
  if stamp ~= '' and redis.call('ZSCORE', changed, fact_id) == stamp then redis.call('ZREM', changed, fact_id) end
end
return {'settled', whole}
