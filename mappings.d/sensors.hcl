# Sensors: one register each, whatever protocol speaks of it.
#
#   mosquitto_pub -t sensors/berlin/oven-3 -m '{"value":21.5}'
#   curl http://gateway/v1/berlin/oven-3
#   psql -h gateway -c "SELECT * FROM sensors WHERE site = 'berlin'"
#   ldapsearch -x -H ldap://gateway -b dc=plant '(cn=oven-3)'
#
# The register is open: any member of the payload becomes a field. To close and type it, add
#   fields = { value = number, unit = string, at = time }

register "site/{site}/{sensor}" {
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}

  bind "sql" "public.sensors" {
    key     = { site = payload.site, sensor = payload.sensor }
    columns = ["value numeric", "unit text", "at timestamptz"]
  }

  # A directory's standard classes have no attribute for a measured value, but each has description.
  bind "ldap" "cn={sensor},ou={site}" {
    map    = { value = number(payload.description) }
    create = { objectClass = ["device"] }
  }
}

test "a sensor reports, and applications see it" {
  send = { mqtt = "sensors/berlin/oven-3", payload = { value = 21.5 } }
  want = { "site/berlin/oven-3" = { value = 21.5 } }
  told = { http = { "/v1/berlin/oven-3" = { value = 21.5 } } }
}

test "what is not mentioned is not touched, null clears" {
  given = { "site/berlin/oven-3" = { value = 21.5, unit = "C", note = "old" } }
  send  = { http = "/v1/berlin/oven-3", verb = "merge", payload = { value = 22, note = null } }
  want  = { "site/berlin/oven-3" = { value = 22, unit = "C" } }
  told  = { mqtt = { "sensors/berlin/oven-3" = { value = 22, unit = "C" } } }
}

test "a directory client writes, and others see it" {
  given = { "site/berlin/oven-3" = { value = 21.5, unit = "C" } }
  send  = { ldap = "cn=oven-3,ou=berlin", verb = "merge", payload = { description = "22.5" } }
  want  = { "site/berlin/oven-3" = { value = 22.5, unit = "C" } }
  told  = { mqtt = { "sensors/berlin/oven-3" = { value = 22.5, unit = "C" } } }
}
