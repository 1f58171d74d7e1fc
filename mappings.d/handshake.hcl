# File handshakes: one side puts an order there and a flag beside it, the other works, answers, and takes the flag away.
#
#   curl -T order.txt http://gateway/spool/4711.order
#   curl -T /dev/null http://gateway/spool/4711.flag            the order is complete
#   curl -X DELETE http://gateway/spool/4711.flag               done with it
#
# A flag is a file that is there or not; here it is a field, `ready`. Who subscribes to jobs/# learns of it without looking
# into a folder again and again, and an answer by MQTT lies in the folder as a file.

register "job/{job}" {
  fields = { order = string, ready = bool, answer = string }

  bind "http" "/spool/{job}.order" {
    codec = text
    map   = { order = payload }
  }
  bind "http" "/spool/{job}.flag" {
    codec = text
    map   = { ready = exists }
  }
  bind "http" "/spool/{job}.answer" {
    codec = text
    map   = { answer = payload }
  }
  bind "mqtt" "jobs/{job}" {}

  # The same folder on a share, for programs that know nothing but files.
  bind "smb" "//spool/jobs/{job}.order" {
    codec = text
    map   = { order = payload }
  }
  bind "smb" "//spool/jobs/{job}.flag" {
    codec = text
    map   = { ready = exists }
  }
  bind "smb" "//spool/jobs/{job}.answer" {
    codec = text
    map   = { answer = payload }
  }
}

test "an order, and then its flag" {
  send = [
    { http = "/spool/4711.order", payload = "20 bolts" },
    { http = "/spool/4711.flag", payload = "" },
  ]
  want = { "job/4711" = { order = "20 bolts", ready = true } }
  told = { mqtt = { "jobs/4711" = { order = "20 bolts", ready = true } } }
}

test "an answer by MQTT is a file, and the flag goes" {
  given = { "job/4711" = { order = "20 bolts", ready = true } }
  send  = { mqtt = "jobs/4711", payload = { answer = "done", ready = false } }
  want  = { "job/4711" = { order = "20 bolts", ready = false, answer = "done" } }
  told  = { http = { "/spool/4711.answer" = "done", "/spool/4711.flag" = null } }
}

test "the flag taken away by hand leaves the order" {
  given = { "job/4711" = { order = "20 bolts", ready = true } }
  send  = { http = "/spool/4711.flag", verb = "delete" }
  want  = { "job/4711" = { order = "20 bolts", ready = false } }
  told  = { mqtt = { "jobs/4711" = { order = "20 bolts", ready = false } } }
}
