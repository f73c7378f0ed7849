-- Switches a document to a revision whose parts are written, by compare-and-set; stores it when it is new.
--
-- KEYS[1]  the document's key
-- ARGV[1]  request: root, now, number, document_id, base_version and base_seq ("" when there must be none), member
--          (names the revision among those that are being written), fields (of the record, as a flat list),
--          revision, passages, seq, due (when the indexer may take over), leftover (what the old revision is called
--          among those to be removed), nonce (names this very request), generation
-- Reply    {"success"} | {"conflict", version ("0" for none)} | {"taken", version} by a fact
--          | {"lost"} when the parts count as given up

local id = request.document_id
local old = read_live_fact(id)
if old and not given(old.document) then return {'taken', old.version} end
-- Its reply was lost, and it came again.
if old and old.nonce == request.nonce then return {'success'} end
if given(request.base_version) then
  if not old or old.version ~= request.base_version or old.seq ~= request.base_seq then
    return {'conflict', old and old.version or '0'}
  end
elseif old then
  return {'conflict', old.version}
end
if not redis.call('ZSCORE', root .. 'staged', request.member) then return {'lost'} end

redis.call('ZADD', root .. 'documents', request.seq, id)
redis.call('ZREM', root .. 'staged', request.member)
forget_attempts(id)
local passages = tonumber(request.passages)
if old then
  passages = passages - tonumber(old.passages)
  redis.call('ZADD', root .. 'leftovers', request.now, request.leftover)
end
redis.call('HINCRBY', root .. 'counters', 'passages', string.format('%d', passages))
-- Whoever empties the server under a running process takes the record of its index along.
if redis.call('EXISTS', root .. 'generation') == 0 then
  redis.call('HSET', root .. 'generation', 'number', request.generation.number,
    'model', request.generation.model, 'dimension', request.generation.dimension, 'build', request.generation.build)
end
redis.call('HSET', KEYS[1], 'nonce', request.nonce, unpack(request.fields))
redis.call('ZADD', root .. 'pending', request.due, id)
note_change(id)
return {'success'}
