-- Stores a new fact with its passages, found by words from now on, and notes that its vectors are pending.
--
-- KEYS[1]  the fact's key
-- ARGV[1]  request: root, now, fact_id, digest, content, metadata, tags, source, principals, document, expires_at,
--          revision, labels, passages, sections, number, generation, due (when the indexer may take over),
--          nonce (names this very request)
-- Reply    {"success", fact_id, version, indexed} | {"duplicate", fact_id, version, indexed}
--          | {"conflict", fact_id, version} when the id belongs to a fact with another content

-- Whoever is told that a fact is stored already must find it for as long as it was asked for.
local function live_longer(fact_id, fact)
  if not given(fact.expires_at) then return end
  local forever = not given(request.expires_at)
  if not forever and tonumber(request.expires_at) <= tonumber(fact.expires_at) then return end
  redis.call('HSET', root .. 'fact:' .. fact_id, 'expires_at', request.expires_at)
  if forever then
    redis.call('ZREM', root .. 'expiring', fact_id)
  else
    redis.call('ZADD', root .. 'expiring', request.expires_at, fact_id)
  end
  note_change(fact_id)
  for _, key in ipairs(part_keys(fact_id, fact)) do
    if forever then redis.call('PERSIST', key) else redis.call('PEXPIREAT', key, request.expires_at) end
  end
end

local function duplicate(fact_id, fact)
  live_longer(fact_id, fact)
  return {'duplicate', fact_id, fact.version, fact.indexed}
end

local existing = read_live_fact(request.fact_id)
if existing then
  if given(existing.document) then return {'conflict', request.fact_id, existing.version} end
  -- Its reply was lost, and it came again.
  if existing.nonce == request.nonce then return {'success', request.fact_id, existing.version, existing.indexed} end
  if existing.digest == request.digest then return duplicate(request.fact_id, existing) end
  return {'conflict', request.fact_id, existing.version}
end

local owner = redis.call('HGET', root .. 'contents', request.digest)
if owner then
  local owned = read_live_fact(owner)
  if owned then return duplicate(owner, owned) end
end

local fact = {
  document = request.document, revision = request.revision, expires_at = request.expires_at,
  created_at = request.now, updated_at = request.now,
  seq = redis.call('HINCRBY', root .. 'counters', 'seq', 1),
}
-- Whoever empties the server under a running process takes the record of its index along.
if redis.call('EXISTS', root .. 'generation') == 0 then
  redis.call('HSET', root .. 'generation', 'number', request.generation.number,
    'model', request.generation.model, 'dimension', request.generation.dimension, 'build', request.generation.build)
end
redis.call('HSET', KEYS[1], 'content', request.content, 'metadata', request.metadata, 'tags', request.tags,
  'source', request.source, 'principals', request.principals, 'document', request.document,
  'digest', request.digest, 'version', '1', 'revision', request.revision, 'passages', #request.passages,
  'sections', #request.sections,
  'seq', fact.seq, 'created_at', request.now, 'updated_at', request.now, 'expires_at', request.expires_at,
  'indexed', '0', 'nonce', request.nonce)
redis.call('HSET', root .. 'contents', request.digest, request.fact_id)
redis.call('ZADD', root .. 'facts', fact.seq, request.fact_id)
redis.call('ZADD', root .. 'pending', request.due, request.fact_id)
redis.call('ZADD', root .. 'inserts', tonumber(request.now) + LATEST_INSERT_MS, request.fact_id .. ':' .. request.revision)
if given(request.expires_at) then
  redis.call('ZADD', root .. 'expiring', request.expires_at, request.fact_id)
end
list_among_visible(request.fact_id, fact.seq, request.principals, true)
count_labels(request.tags, request.source, 1)
write_parts(request.fact_id, fact)
note_change(request.fact_id)
return {'success', request.fact_id, '1', '0'}
