# Recipes: a CSV file that a machine reads, rows of a table, and one register for each row.
#
#   printf 'parameter;value;unit\r\ntemp;180,5;C\r\ntime;40;min\r\n' | curl -T - http://gateway/recipes/bread.csv
#   curl http://gateway/recipes/bread/temp                      {"unit":"C","value":180.5}
#   mosquitto_pub -t recipes/bread/temp -m '{"value":175}'
#   curl http://gateway/recipes/bread.csv                       the same file, with 175 in its row
#
# A file is one batch: a mistake in one row refuses all of it. Rows that it no longer has are deleted, at most half of them
# at a time (`max_change`), so that a file that was emptied or cut off deletes nothing. Columns that nobody maps stay as
# they are.

register "recipe/{recipe}/{param}" {
  fields = { value = number, unit = string }

  bind "http" "/recipes/{recipe}.csv" {
    codec = csv(";")
    each  = payload
    key   = { param = row.parameter }
    map   = { value = number(row.value, ","), unit = row.unit }
  }
  bind "http" "/recipes/{recipe}/{param}" {}
  bind "mqtt" "recipes/{recipe}/{param}" {}

  # The machine's own share, and the planners' table.
  bind "smb" "//plc/recipes/{recipe}.csv" {
    codec = csv(";", { charset = "windows-1252" })
    each  = payload
    key   = { param = row.parameter }
    map   = { value = number(row.value, ","), unit = row.unit }
  }
  bind "sql" "public.recipe_rows" {
    key = { recipe = payload.recipe, param = payload.parameter }
    map = { value = payload.value, unit = payload.unit }
  }
}

test "a file is its rows" {
  send = { http = "/recipes/bread.csv", payload = "parameter;value;unit\ntemp;180,5;C\ntime;40;min\n" }
  want = {
    "recipe/bread/temp" = { value = 180.5, unit = "C" }
    "recipe/bread/time" = { value = 40, unit = "min" }
  }
  told = {
    mqtt = {
      "recipes/bread/temp" = { value = 180.5, unit = "C" }
      "recipes/bread/time" = { value = 40, unit = "min" }
    }
  }
}

test "one row changes, the rest of the file stays as it was written" {
  send = [
    { http = "/recipes/bread.csv", payload = "parameter;value;unit;note\ntemp;180,50;C;hot!\ntime;40,0;min;\n" },
    { mqtt = "recipes/bread/temp", payload = { value = 175 } },
  ]
  want = { "recipe/bread/temp" = { value = 175, unit = "C" } }
  told = {
    http = [
      { "/recipes/bread.csv" = "parameter;value;unit;note\ntemp;175;C;hot!\ntime;40,0;min;\n" },
      "/recipes/bread/temp",
      "/recipes/bread/time",
    ]
  }
}

test "a row that is gone is a register that is gone" {
  given = {
    "recipe/bread/temp" = { value = 180 }
    "recipe/bread/time" = { value = 40 }
    "recipe/bread/rest" = { value = 5 }
    "recipe/bread/salt" = { value = 2 }
    "recipe/bread/rise" = { value = 60 }
  }
  send = { http = "/recipes/bread.csv", payload = "parameter;value\ntemp;180\ntime;40\nrest;5\nsalt;2\n" }
  want = { "recipe/bread/rise" = null, "recipe/bread/salt" = { value = 2 } }
  told = { mqtt = { "recipes/bread/rise" = null } }
}

test "a file that was cut off deletes nothing" {
  given = {
    "recipe/bread/temp" = { value = 180 }
    "recipe/bread/time" = { value = 40 }
    "recipe/bread/rest" = { value = 5 }
  }
  send    = { http = "/recipes/bread.csv", payload = "parameter;value\ntemp;190\n" }
  want    = { "recipe/bread/temp" = { value = 180 }, "recipe/bread/time" = { value = 40 } }
  told    = {}
  refused = "max_change"
}

test "a mistake in one row refuses all of them" {
  send    = { http = "/recipes/bread.csv", payload = "parameter;value\ntemp;180\ntime;long\n" }
  want    = { "recipe/bread/temp" = null, "recipe/bread/time" = null }
  refused = "row 2 (param \"time\")"
}
