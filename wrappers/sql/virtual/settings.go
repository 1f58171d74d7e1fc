package virtual

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

const (
	serverVersion = "15.0"
	versionText   = "PostgreSQL " + serverVersion + " (spookgw: registers as rows)"
)

// settings are a session's run-time parameters.
type settings struct {
	values  map[string]string
	zone    *time.Location
	timeout time.Duration // statement_timeout; 0: none
	idle    time.Duration // idle_in_transaction_session_timeout
}

// defaults are the settings that are known, and what they are at first.
var defaults = map[string]string{
	"application_name": "", "client_encoding": "UTF8", "server_encoding": "UTF8", "datestyle": "ISO, MDY", "intervalstyle": "postgres", "timezone": "UTC",
	"integer_datetimes": "on", "standard_conforming_strings": "on", "server_version": serverVersion, "server_version_num": "150000", "is_superuser": "off",
	"session_authorization": "", "in_hot_standby": "off", "default_transaction_read_only": "off", "transaction_read_only": "off",
	"default_transaction_isolation": "read committed", "transaction_isolation": "read committed", "default_transaction_deferrable": "off",
	"transaction_deferrable": "off", "search_path": `"$user", public`, "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
	"idle_session_timeout": "0", "extra_float_digits": "1", "bytea_output": "hex", "client_min_messages": "notice", "log_statement": "none", "row_security": "on",
	"max_identifier_length": "63", "max_index_keys": "32", "block_size": "8192", "escape_string_warning": "on", "backslash_quote": "safe_encoding",
	"check_function_bodies": "on", "xmloption": "content", "lc_collate": "C", "lc_ctype": "C.UTF-8", "lc_messages": "C", "lc_monetary": "C", "lc_numeric": "C",
	"lc_time": "C", "synchronous_commit": "on", "work_mem": "64MB", "maintenance_work_mem": "64MB", "jit": "off", "enable_seqscan": "on", "role": "none",
	"default_tablespace": "", "default_table_access_method": "heap", "wal_level": "replica", "max_connections": "10000", "ssl": "off", "password_encryption": "scram-sha-256",
	"geqo": "off", "force_parallel_mode": "off", "synchronize_seqscans": "on", "quote_all_identifiers": "off", "tcp_keepalives_idle": "0",
	"tcp_keepalives_interval": "0", "tcp_user_timeout": "0", "client_connection_check_interval": "0", "plan_cache_mode": "auto", "temp_buffers": "8MB",
}

// reported are those of which clients are told (protocol, section 55.2.7), as they are written there.
var reported = map[string]string{
	"application_name": "application_name", "client_encoding": "client_encoding", "server_encoding": "server_encoding", "datestyle": "DateStyle",
	"intervalstyle": "IntervalStyle", "timezone": "TimeZone", "integer_datetimes": "integer_datetimes", "standard_conforming_strings": "standard_conforming_strings",
	"server_version": "server_version", "is_superuser": "is_superuser", "session_authorization": "session_authorization", "in_hot_standby": "in_hot_standby",
	"default_transaction_read_only": "default_transaction_read_only",
}

// fixed can't be set.
var fixed = map[string]bool{
	"server_encoding": true, "integer_datetimes": true, "server_version": true, "server_version_num": true, "is_superuser": true, "in_hot_standby": true,
	"max_identifier_length": true, "max_index_keys": true, "block_size": true, "lc_collate": true, "lc_ctype": true, "wal_level": true, "max_connections": true, "ssl": true,
}

func newSettings(user string) *settings {
	s := &settings{values: map[string]string{"session_authorization": user}, zone: time.UTC}
	return s
}

func (s *settings) clone() *settings {
	c := *s
	c.values = maps.Clone(s.values)
	return &c
}

func noSetting(name string) error {
	return pgsql.Errorf(pgsql.UndefinedObject, "unrecognized configuration parameter \"%s\"", name)
}

func (s *settings) show(name string) (string, bool) {
	name = strings.ToLower(name)
	if v, ok := s.values[name]; ok {
		return v, true
	}
	switch name {
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable": // outside of a block: of the next one
		return s.show("default_" + name)
	}
	v, ok := defaults[name]
	return v, ok
}

func (s *settings) names() []string {
	all := maps.Clone(defaults)
	maps.Copy(all, s.values)
	return slices.Sorted(maps.Keys(all))
}

// set changes a setting; the session tells the client.
func (s *settings) set(name, value string) error {
	name = strings.ToLower(name)
	_, known := defaults[name]
	switch {
	case fixed[name]:
		return pgsql.Errorf("55P02", "parameter \"%s\" cannot be changed", name)
	case !known && !strings.Contains(name, "."):
		return noSetting(name)
	}
	bad := func() error {
		return pgsql.Errorf("22023", "invalid value for parameter \"%s\": \"%s\"", name, value)
	}
	switch name {
	case "timezone":
		zone, err := pgsql.Zone(strings.Trim(value, "'"))
		if err != nil {
			return bad()
		}
		s.zone = zone
	case "client_encoding":
		switch strings.ToUpper(strings.NewReplacer("-", "", "_", "", "'", "").Replace(value)) {
		case "UTF8", "UNICODE":
			value = "UTF8"
		case "SQLASCII":
			value = "SQL_ASCII"
		default:
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "only the encoding UTF8 is spoken here"}
		}
	case "datestyle":
		if !strings.Contains(strings.ToUpper(value), "ISO") && !strings.Contains(strings.ToUpper(value), "MDY") {
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "only the date style ISO is spoken here"}
		}
		value = "ISO, MDY"
	case "intervalstyle":
		if strings.ToLower(value) != "postgres" {
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "only the interval style postgres is spoken here"}
		}
	case "bytea_output":
		if strings.ToLower(value) != "hex" {
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "only the bytea output hex is spoken here"}
		}
	case "standard_conforming_strings":
		if strings.ToLower(value) != "on" && strings.ToLower(value) != "true" {
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "strings are standard conforming here"}
		}
		value = "on"
	case "role":
		if strings.ToLower(value) != "none" {
			return &pgsql.Error{Code: pgsql.FeatureNotSupported, Message: "SET ROLE is not supported here"}
		}
	case "statement_timeout", "idle_in_transaction_session_timeout":
		d, ok := duration(value)
		if !ok {
			return bad()
		}
		if name == "statement_timeout" {
			s.timeout = d
		} else {
			s.idle = d
		}
	case "default_transaction_isolation", "transaction_isolation":
		value = strings.ToLower(value)
		if !slices.Contains([]string{"serializable", "repeatable read", "read committed", "read uncommitted"}, value) {
			return bad()
		}
	case "default_transaction_read_only", "transaction_read_only":
		v, err := pgsql.ParseText(value, pgsql.Bool, time.UTC)
		if err != nil {
			return bad()
		}
		value = "off"
		if v.Int != 0 {
			value = "on"
		}
	}
	s.values[name] = value
	return nil
}

// duration reads milliseconds, or a number with a unit.
func duration(s string) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Millisecond, true
	}
	for unit, d := range map[string]time.Duration{"ms": time.Millisecond, "us": time.Microsecond, "min": time.Minute, "s": time.Second, "h": time.Hour, "d": 24 * time.Hour} {
		if n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(s, unit)), 10, 31); err == nil && strings.HasSuffix(s, unit) {
			return time.Duration(n) * d, true
		}
	}
	return 0, false
}
