"""Version 2: the signed envelopes that ever stood in trust/."""

from __future__ import annotations

SQL = """
CREATE TABLE attestations (     -- every signed envelope that stood in trust/; it decides, this only indexes
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,    -- of the envelope, byte for byte
    predicate_type TEXT NOT NULL,   -- of a head: its payload type
    subject TEXT NOT NULL,      -- NAME/ARCH, CHANNEL: NAME/ARCH, a revoked digest, or the name of a head
    image TEXT,                 -- the digest it speaks of; NULL: of none
    number INTEGER,             -- of a promotion or revocation; the version of a head
    made_at TEXT NOT NULL,
    signers TEXT NOT NULL,      -- JSON: the keyids it gives, not verified
    envelope BLOB NOT NULL,
    indexed_at TEXT NOT NULL
) STRICT;
CREATE INDEX attestations_of_image ON attestations(image, predicate_type);
CREATE INDEX attestations_of_subject ON attestations(predicate_type, subject, number);
"""

APPEND_ONLY = ("attestations",)
