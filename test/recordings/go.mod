module recordings

go 1.26.0

require gocloud.dev v0.47.0
