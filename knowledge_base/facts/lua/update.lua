-- Switches a fact to its next version by compare-and-set.
--
-- KEYS[1]  the fact's key
-- ARGV[1]  request: root, now, fact_id, base_version, base_seq, callers, digest, content, metadata, tags, source, revision,
--          labels, passages and sections (empty when the content stays), number, due, keep_history,
--          nonce (names this very request)
-- Reply    {"success", fact_id, version, indexed} | {"missing"} | {"conflict", fact_id, version}
--          | {"duplicate", fact_id, version} when another fact has this content

local fact = read_live_fact(request.fact_id)
if not fact or given(fact.document) or not is_visible(fact, request.callers) then return {'missing'} end
-- Its reply was lost, and it came again.
if fact.nonce == request.nonce then return {'success', request.fact_id, fact.version, fact.indexed} end
-- Versions begin anew when a fact is deleted and its id stored again; sequence numbers do not.
local changed = fact.digest ~= request.digest
local unread = fact.version ~= request.base_version or fact.seq ~= request.base_seq
if unread or (changed and #request.passages == 0) then return {'conflict', request.fact_id, fact.version} end

if changed then
  local owner = redis.call('HGET', root .. 'contents', request.digest)
  if owner and owner ~= request.fact_id then
    local owned = read_live_fact(owner)
    if owned then return {'duplicate', owner, owned.version} end
  end
end

if request.keep_history > 0 then
  local history = root .. 'history:' .. request.fact_id
  redis.call('LPUSH', history, cjson.encode({
    version = fact.version, content = fact.content, metadata = fact.metadata, tags = fact.tags,
    source = fact.source, updated_at = fact.updated_at}))
  redis.call('LTRIM', history, 0, request.keep_history - 1)
end

count_labels(fact.tags, fact.source, -1)
count_labels(request.tags, request.source, 1)

local version = string.format('%d', tonumber(fact.version) + 1)
fact.updated_at = request.now
if changed then
  remove_parts(request.fact_id, fact)
  expect_late_vectors(request.fact_id, fact)
  forget_attempts(request.fact_id)
  fact.revision = request.revision
  write_parts(request.fact_id, fact)
  local indexed = '1'
  for position = 0, #request.passages - 1 do
    local key = passage_key(request.fact_id, fact.revision, position)
    if redis.call('HEXISTS', key, 'vector') == 0 then indexed = '0' end
  end
  if indexed == '0' then
    redis.call('ZADD', root .. 'pending', request.due, request.fact_id)
  else
    redis.call('ZREM', root .. 'pending', request.fact_id)
    redis.call('ZREM', root .. 'inserts', request.fact_id .. ':' .. request.revision)
  end
  if redis.call('HGET', root .. 'contents', fact.digest) == request.fact_id then
    redis.call('HDEL', root .. 'contents', fact.digest)
  end
  redis.call('HSET', root .. 'contents', request.digest, request.fact_id)
  redis.call('HSET', KEYS[1], 'content', request.content, 'digest', request.digest, 'revision', request.revision,
    'passages', #request.passages, 'sections', #request.sections, 'indexed', indexed)
  fact.indexed = indexed
else
  relabel_parts(request.fact_id, fact)
end
note_change(request.fact_id)
redis.call('HSET', KEYS[1], 'metadata', request.metadata, 'tags', request.tags, 'source', request.source,
  'version', version, 'updated_at', request.now, 'nonce', request.nonce)
return {'success', request.fact_id, version, fact.indexed}
