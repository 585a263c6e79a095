"""The gRPC edge: all that happens to a call before and after its domain.

server       serves; listening, health, drain beside it
edge         the order of the steps, outermost last:
  kinds, decoding, validation   bytes -> checked message -> handler -> bytes
  deadline                      unary calls end
  access                        who may call
  drain                         streams can be ended
  load                          how much at once
  errors                        whatever is raised -> a reason -> a status
  telemetry, metrics, logs      what an operator sees
"""
