# What an operator may do beside it: rotate the key that wraps the values, and look at it.
path "transit/keys/credentials" {
  capabilities = ["read"]
}
path "transit/keys/credentials/rotate" {
  capabilities = ["update"]
}
path "transit/keys/credentials/config" {
  capabilities = ["update"]
}
path "sys/audit" {
  capabilities = ["read", "sudo"]
}
path "sys/storage/raft/snapshot" {
  capabilities = ["read"]
}

# A new secret id for the scheduler, wrapped; and an end to those that somebody else has.
path "auth/approle/role/airavata-scheduler/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/airavata-scheduler/secret-id" {
  capabilities = ["update", "list"]
}
path "auth/approle/role/airavata-scheduler/secret-id-accessor/lookup" {
  capabilities = ["update"]
}
path "auth/approle/role/airavata-scheduler/secret-id-accessor/destroy" {
  capabilities = ["update"]
}
