"""The resource engine: one declaration makes a listable, editable, restorable, versioned row."""
