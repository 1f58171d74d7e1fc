# People and their teams: a directory, a table of the personnel office, and a web application.
#
#   curl -X PUT http://gateway/people/ann -d '{"name":"Ann Lee","mail":"ann@acme.example","boss":"bo"}'
#   curl -X PUT http://gateway/teams/ovens -d '{"title":"Ovens","members":["ann","bo"]}'
#   curl -X POST http://gateway/teams/ovens/join -d '{"who":"cy"}'
#   curl http://gateway/teams/ovens                             {"members":["ann","bo","cy"],"title":"Ovens"}
#
# What nobody maps never leaves its place: the salary column, the password attribute.

register "person/{uid}" {
  fields = { name = string, mail = string, phone = string, boss = string }

  bind "http" "/people/{uid}" {}

  # Relative to the wrapper's base. What an entry must have when the gateway makes it stands in `create`.
  bind "ldap" "uid={uid},ou=people" {
    map = {
      name  = payload.cn
      mail  = payload.mail
      phone = payload.telephoneNumber
      boss  = part(payload.manager, "uid={},ou=people,dc=acme,dc=org")
    }
    create = { objectClass = ["inetOrgPerson"], sn = self.name }
  }

  # Who has left keeps his row: it is marked, and the register is gone.
  bind "sql" "hr.people" {
    key    = { uid = payload.uid }
    map    = { name = payload.full_name, mail = payload.email, phone = payload.phone, boss = payload.manager_uid }
    delete = { left_at = now }
  }
}

# Members are a set: whom one adds and another adds are both in it, whoever came first.
register "team/{team}" {
  fields = { title = string, members = union(string) }

  bind "http" "/teams/{team}" {}
  bind "http" "/teams/{team}/join" {
    methods = ["POST"]
    in      = { members = by(payload.who) }
  }

  # The directory names members by their whole names, a team by `cn`.
  bind "ldap" "cn={team},ou=groups" {
    map    = { title = payload.description }
    in     = { members = [for m in payload.member : regex("^uid=([^,]+),", m)[0]] }
    out    = { member = [for uid in self.members : "uid=${uid},ou=people,dc=acme,dc=org"] }
    create = { objectClass = ["groupOfNames"] }
  }
  bind "sql" "hr.teams" {
    key = { team = payload.code }
    map = { title = payload.title, members = split(payload.members, ",") }
  }
}

test "somebody new" {
  send = { http = "/people/ann", payload = { name = "Ann Lee", mail = "ann@acme.example", boss = "bo", salary = 1 } }
  want = { "person/ann" = { name = "Ann Lee", mail = "ann@acme.example", boss = "bo" } }
}

test "a new phone touches nothing else, and null takes it away" {
  given = { "person/ann" = { name = "Ann Lee", mail = "ann@acme.example", phone = "1" }, "person/bo" = { name = "Bo", phone = "2" } }
  send = [
    { http = "/people/ann", verb = "merge", payload = { phone = "77" } },
    { http = "/people/bo", verb = "merge", payload = { phone = null } },
  ]
  want = {
    "person/ann" = { name = "Ann Lee", mail = "ann@acme.example", phone = "77" }
    "person/bo"  = { name = "Bo" }
  }
}

test "two join, and nobody is put out" {
  given = { "team/ovens" = { title = "Ovens", members = ["ann"] } }
  send = [
    { http = "/teams/ovens/join", verb = "message", payload = { who = "bo" } },
    { http = "/teams/ovens/join", verb = "message", payload = { who = "cy" } },
  ]
  want = { "team/ovens" = { title = "Ovens", members = ["ann", "bo", "cy"] } }
  told = { http = ["/teams/ovens"] }
}

test "a list is the whole set" {
  given = { "team/ovens" = { title = "Ovens", members = ["ann", "bo"] } }
  send  = { http = "/teams/ovens", verb = "merge", payload = { members = ["bo"] } }
  want  = { "team/ovens" = { title = "Ovens", members = ["bo"] } }
}

test "who leaves is gone" {
  given = { "person/ann" = { name = "Ann Lee" } }
  send  = { http = "/people/ann", verb = "delete" }
  want  = { "person/ann" = null }
}
