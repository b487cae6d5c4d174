"""From partial sums to finished half maps, FSC and sharpened map."""
