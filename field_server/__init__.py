"""The field server: reads field devices through drivers, carries commands out."""
