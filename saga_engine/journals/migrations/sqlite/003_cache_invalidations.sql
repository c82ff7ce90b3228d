-- What processes tell each other about their caches.

-- id: never given twice, as each reader remembers the last one that it saw.
-- writer: who wrote it, and so need not take it in.
-- cache: the cached function, as module.QualifiedName.
-- keys: JSON, the array of the arguments; NULL: everything that it cached.
CREATE TABLE cache_invalidations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, writer TEXT NOT NULL, cache TEXT NOT NULL, keys TEXT
);
