package config

import "strings"

// The standard OpenTelemetry variables. This build exports no telemetry over OTLP,
// and does not pretend to: asking for it is a problem, unless OTEL_SDK_DISABLED
// takes it back. Metrics are at /metrics.
func telemetryVariables() []variable {
	var list []variable
	for _, name := range append([]string{"OTEL_SDK_DISABLED"}, otelExports()...) {
		list = append(list, variable{name: name, set: accepted})
	}
	return list
}

// otelExports are the variables that ask for an export.
func otelExports() []string {
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"}
}

func (l *loader) checkTelemetry() {
	if strings.EqualFold(l.env["OTEL_SDK_DISABLED"], "true") {
		return
	}
	for _, name := range otelExports() {
		if l.isSet(name) && l.env[name] != "none" {
			l.problem(name, "asks for an export that is not supported by this build", "unset it, or set OTEL_SDK_DISABLED=true")
		}
	}
}
