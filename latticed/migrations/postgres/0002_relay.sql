-- Public key by which relays know the tokens of peers. NULL until the first latticed that has one claims the database.
ALTER TABLE cluster ADD COLUMN relay TEXT;
