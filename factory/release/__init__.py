"""From an image that passed to one that may run: attest, promote, revoke, resolve, export. Flows; trust/ decides."""
