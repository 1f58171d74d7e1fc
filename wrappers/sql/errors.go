package sql

import (
	"github.com/spooksystems/gateway/wrappers"
)

// sqlstateOf is the one table from the kinds of error to SQLSTATEs (PostgreSQL, appendix A).
var sqlstateOf = map[error]string{
	wrappers.ErrUnmapped:    "42P01", // undefined_table
	wrappers.ErrInvalid:     "22000", // data_exception
	wrappers.ErrNotFound:    "02000", // no_data
	wrappers.ErrDenied:      "42501", // insufficient_privilege
	wrappers.ErrConflict:    "40001", // serialization_failure: try again
	wrappers.ErrTooLarge:    "54000", // program_limit_exceeded
	wrappers.ErrUnavailable: "57P03", // cannot_connect_now
}

// sqlstate gives the code for an error of the link.
func sqlstate(err error) string { return sqlstateOf[wrappers.Kind(err)] }

// Other codes that the gateway itself says.
const (
	stateProtocolViolation = "08P01"
	stateTooManyConns      = "53300"
	stateConnectNow        = "57P03"
	stateNotAuthorized     = "28000"
)
