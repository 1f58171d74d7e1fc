package pgsql

import "fmt"

// An Error is what a client is told: SQLSTATE, text, and where in the statement (PostgreSQL, appendix A).
type Error struct {
	Code     string // SQLSTATE, five characters
	Message  string
	Detail   string
	Hint     string
	Position int // in characters of the statement, from 1; 0: nowhere
}

func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// The SQLSTATEs used here.
const (
	SyntaxError         = "42601"
	UndefinedTable      = "42P01"
	UndefinedColumn     = "42703"
	UndefinedFunction   = "42883"
	UndefinedObject     = "42704"
	UndefinedParameter  = "42P02"
	AmbiguousColumn     = "42702"
	DuplicateAlias      = "42712"
	DatatypeMismatch    = "42804"
	GroupingError       = "42803"
	InvalidColumnRef    = "42P10"
	FeatureNotSupported = "0A000"
	InvalidText         = "22P02"
	InvalidDatetime     = "22007"
	OutOfRange          = "22003"
	DivisionByZero      = "22012"
	StatementTooComplex = "54001"
	InvalidEscape       = "22025"
	CharacterNotInRange = "22021"
)

// Errorf makes an Error.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func unsupported(what string) *Error {
	return &Error{Code: FeatureNotSupported, Message: what + " is not supported here"}
}
