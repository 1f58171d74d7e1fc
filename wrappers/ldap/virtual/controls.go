package virtual

import (
	"strconv"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

func itoa(n int) string { return strconv.Itoa(n) }

// known are the controls that each operation takes (RFC 4511, section 4.1.11).
var known = map[ldapwire.Op]map[string]bool{
	ldapwire.OpSearchRequest: {
		ldapwire.OIDAssertion: true, ldapwire.OIDManageDsaIT: true, ldapwire.OIDPagedResults: true, ldapwire.OIDServerSort: true,
		ldapwire.OIDSyncRequest: true, ldapwire.OIDPersistent: true, ldapwire.OIDDontUseCopy: true,
	},
	ldapwire.OpCompareRequest:  {ldapwire.OIDAssertion: true, ldapwire.OIDManageDsaIT: true, ldapwire.OIDDontUseCopy: true},
	ldapwire.OpModifyRequest:   {ldapwire.OIDAssertion: true, ldapwire.OIDPreRead: true, ldapwire.OIDPostRead: true, ldapwire.OIDManageDsaIT: true},
	ldapwire.OpAddRequest:      {ldapwire.OIDAssertion: true, ldapwire.OIDPostRead: true, ldapwire.OIDManageDsaIT: true},
	ldapwire.OpDelRequest:      {ldapwire.OIDAssertion: true, ldapwire.OIDPreRead: true, ldapwire.OIDManageDsaIT: true, ldapwire.OIDTreeDelete: true},
	ldapwire.OpModifyDNRequest: {ldapwire.OIDAssertion: true, ldapwire.OIDPreRead: true, ldapwire.OIDPostRead: true, ldapwire.OIDManageDsaIT: true},
}

// supportedControls are those of the root DSE.
var supportedControls = []string{
	ldapwire.OIDAssertion, ldapwire.OIDPreRead, ldapwire.OIDPostRead, ldapwire.OIDManageDsaIT, ldapwire.OIDPagedResults,
	ldapwire.OIDServerSort, ldapwire.OIDTreeDelete, ldapwire.OIDSyncRequest, ldapwire.OIDPersistent, ldapwire.OIDDontUseCopy,
}

// unknownCritical gives the first critical control that an operation does not take; "" without.
func unknownCritical(m *ldapwire.Message) string {
	for i := range m.Controls {
		if c := &m.Controls[i]; c.Criticality && !known[m.Body.Op()][c.Type] {
			return c.Type
		}
	}
	return ""
}

// control gives a control that the operation takes.
func control(m *ldapwire.Message, oid string) *ldapwire.Control {
	if !known[m.Body.Op()][oid] {
		return nil
	}
	return ldapwire.FindControl(m.Controls, oid)
}
