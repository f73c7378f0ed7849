-- Puts a fact or document back on the lists that it belongs to, and to those that wait for vectors if it lacks any.
--
-- KEYS[1]  the fact's key
-- ARGV[1]  request: root, now, number, fact_id, vector_bytes
-- Reply    1, or 0 when there is no such fact

local fact = read_fact(request.fact_id)
if not fact then return 0 end

local function list(key, score)
  if tonumber(redis.call('ZSCORE', root .. key, request.fact_id) or nil) ~= tonumber(score) then
    redis.call('ZADD', root .. key, score, request.fact_id)
  end
end

local function list_everywhere()
  if given(fact.expires_at) then list('expiring', fact.expires_at) end
  if given(fact.document) then return list('documents', fact.seq) end
  list('facts', fact.seq)
  list_among_visible(request.fact_id, fact.seq, fact.principals, true)
  local owner = redis.call('HGET', root .. 'contents', fact.digest)
  if not owner or redis.call('HGET', root .. 'fact:' .. owner, 'digest') ~= fact.digest then
    redis.call('HSET', root .. 'contents', fact.digest, request.fact_id)
  end
end

local function lacks_vectors()
  local lacks = false
  for position = 0, tonumber(fact.passages) - 1 do
    local key = passage_key(request.fact_id, fact.revision, string.format('%d', position))
    local length = redis.call('HSTRLEN', key, 'vector')
    if length ~= 0 and length ~= request.vector_bytes then redis.call('HDEL', key, 'vector') end
    if length ~= request.vector_bytes then lacks = true end
  end
  return lacks
end

local function settle()
  if not lacks_vectors() then
    redis.call('ZREM', root .. 'pending', request.fact_id)
    forget_attempts(request.fact_id)
    redis.call('HSET', KEYS[1], 'indexed', '1')
    return
  end
  redis.call('HSET', KEYS[1], 'indexed', '0')
  if redis.call('HEXISTS', root .. 'parked', request.fact_id) == 0 then
    redis.call('ZADD', root .. 'pending', 'NX', request.now, request.fact_id)
  end
end

list_everywhere()
if is_expired(fact) then return 1 end
settle()
note_change(request.fact_id)
return 1
