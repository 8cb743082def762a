package main

import (
	"io"
	"log/slog"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

// newLogger returns the logger that the configuration asks for.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// logWarnings writes what the configuration warns of, one line each.
func logWarnings(log *slog.Logger, c config.Config) {
	for _, warning := range c.Warnings {
		log.Warn(warning)
	}
}
