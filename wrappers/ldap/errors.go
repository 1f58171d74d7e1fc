package ldap

import (
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// resultOf is the one table from the kinds of error to result codes (RFC 4511, appendix A).
var resultOf = map[error]ldapwire.ResultCode{
	wrappers.ErrUnmapped:    ldapwire.UnwillingToPerform,
	wrappers.ErrInvalid:     ldapwire.ConstraintViolation,
	wrappers.ErrNotFound:    ldapwire.NoSuchObject,
	wrappers.ErrDenied:      ldapwire.InsufficientAccessRights,
	wrappers.ErrConflict:    ldapwire.AssertionFailed,
	wrappers.ErrTooLarge:    ldapwire.AdminLimitExceeded,
	wrappers.ErrUnavailable: ldapwire.Unavailable,
}

// resultCode gives the code for an error of the link.
func resultCode(err error) ldapwire.ResultCode { return resultOf[wrappers.Kind(err)] }
