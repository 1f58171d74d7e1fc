package schema

// localOID is the identifier of a type that no standard knows, made of its name as Netscape's servers make one.
func localOID(name string) string {
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		return name
	}
	return lower(name) + "-oid"
}

// Local makes an attribute type for a name that no standard defines: a directory string that is compared without case.
func Local(name string) *AttributeType {
	return &AttributeType{
		OID: localOID(name), Names: []string{name}, Equality: "caseIgnoreMatch", Ordering: "caseIgnoreOrderingMatch",
		Substrings: "caseIgnoreSubstringsMatch", Syntax: arc + "15", Extensions: []Extension{{Name: "X-ORIGIN", Values: []string{"mapping"}}},
	}
}

// IsName tells whether an attribute type can have this name (RFC 4512, section 1.4).
func IsName(s string) bool { return isOID(s) }
