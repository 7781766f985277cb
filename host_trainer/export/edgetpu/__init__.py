"""What the Edge TPU compiler would do with a TFLite file, told without the compiler and without a Coral."""
