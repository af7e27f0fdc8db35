"""What is signed and who may sign it: envelopes, statements, tickets, policy, channels. Decides, never acts."""
