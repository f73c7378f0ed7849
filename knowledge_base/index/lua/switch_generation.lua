-- Makes the generation that was built the live one, in one step that every process sees.
--
-- KEYS[1]  the hash of the rebuild
-- ARGV[1]  request: root, token, lease (ms), with_vectors, vector_bytes, most (parts that may be copied here),
--          grace (ms until the old generation may be dropped)
-- Reply    {"lost"} | {"changed", facts that have to be copied before} | {"switched", members of what is retired}

renew()
local waiting = redis.call('ZRANGE', changed, 0, request.most)
if #waiting > request.most then return {'changed', redis.call('ZCARD', changed)} end
local parts = 0
for _, fact_id in ipairs(waiting) do
  local counts = redis.call('HMGET', root .. 'fact:' .. fact_id, 'passages', 'sections')
  parts = parts + tonumber(counts[1] or 0) + tonumber(counts[2] or 0)
end
if parts > request.most then return {'changed', #waiting} end
for _, fact_id in ipairs(waiting) do
  copy_fact(fact_id, 0, '', request.most)
  if not request.with_vectors and redis.call('EXISTS', root .. 'fact:' .. fact_id) == 1 then mark_pending(fact_id) end
end
for _, fact_id in ipairs(redis.call('SMEMBERS', root .. 'unembedded')) do
  if redis.call('EXISTS', root .. 'fact:' .. fact_id) == 1 then mark_pending(fact_id) end
end
if not request.with_vectors then
  -- What the old model has refused is offered to the new one.
  for _, fact_id in ipairs(redis.call('HKEYS', root .. 'parked')) do
    if redis.call('EXISTS', root .. 'fact:' .. fact_id) == 1 then mark_pending(fact_id) end
  end
  redis.call('DEL', root .. 'parked', root .. 'attempts')
end
local generation = root .. 'generation'
local retired = live_number .. ':' .. (redis.call('HGET', generation, 'build') or '1')
local model = redis.call('HMGET', KEYS[1], 'model', 'dimension', 'cut')
redis.call('HSET', generation, 'number', next_number, 'model', model[1], 'dimension', model[2], 'build', '1',
  'cut', model[3], 'switched_by', request.token)
redis.call('ZADD', root .. 'retired', string.format('%.0f', now_ms() + request.grace), retired)
redis.call('UNLINK', KEYS[1], changed, root .. 'unembedded')
return {'switched', retired}
