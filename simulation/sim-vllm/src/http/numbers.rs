//! Vectors as bytes: `embed_dtype` and `endianness` of a request.

use super::{errors::ApiError, fields::Fields};

/// How numbers are written.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    pub(super) dtype: &'a str,
    pub(super) endianness: &'a str,
}

impl<'a> Numbers<'a> {
    /// # Errors
    /// As vLLM refuses what it does not know; 8-bit floats too, which it does.
    pub(super) fn read(fields: Fields<'a>) -> Result<Self, ApiError> {
        let dtype = fields.text("embed_dtype")?.unwrap_or("float32");
        let endianness = fields.text("endianness")?.unwrap_or("native");
        if !["float32", "float16", "bfloat16"].contains(&dtype) {
            return Err(ApiError::invalid("body.embed_dtype", "Input should be 'float32', 'float16' or 'bfloat16'"));
        }
        if !["native", "big", "little"].contains(&endianness) {
            return Err(ApiError::invalid("body.endianness", "Input should be 'native', 'big' or 'little'"));
        }
        Ok(Self { dtype, endianness })
    }

    pub(super) fn write(self, vector: &[f32]) -> Vec<u8> {
        let is_big = self.endianness == "big";
        let two = |bits: u16| if is_big { bits.to_be_bytes() } else { bits.to_le_bytes() };
        let four = |value: f32| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
        match self.dtype {
            "float16" => vector.iter().flat_map(|value| two(half(*value))).collect(),
            "bfloat16" => vector.iter().flat_map(|value| two(brain(*value))).collect(),
            _ => vector.iter().flat_map(|value| four(*value)).collect(),
        }
    }
}

/// The upper half, rounded to the nearest even.
fn brain(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// IEEE 754 binary16 of a number whose magnitude is at most one, rounded to the nearest even.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let fraction = bits & 0x007f_ffff | 0x0080_0000;
    // Numbers below the smallest normal one lose more bits.
    let shift = if exponent > 0 { 13 } else { 14 - exponent };
    if shift > 24 {
        return sign;
    }
    let (kept, lost, middle) = (fraction >> shift, fraction & ((1 << shift) - 1), 1 << (shift - 1));
    let rounded = kept + u32::from(lost > middle || (lost == middle && kept & 1 == 1));
    let base = if exponent > 0 { (exponent as u32) << 10 } else { 0x400 };
    sign | (base + rounded - 0x400) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_everybody_reads_them() {
        // As Python's `struct` and PyTorch write them.
        let table = [
            ("float32", "native", 1.0, &[0, 0, 0x80, 0x3f][..]),
            ("float32", "big", -0.5, &[0xbf, 0, 0, 0]),
            ("float16", "little", 1.0, &[0, 0x3c]),
            ("float16", "big", -0.333_251_95, &[0xb5, 0x55]),
            ("float16", "big", 0.1, &[0x2e, 0x66]),
            ("float16", "big", 0.999_9, &[0x3c, 0x00]),
            ("float16", "big", 5.960_464_5e-8, &[0, 1]),
            ("float16", "big", 6.103_515_6e-5, &[0x04, 0]),
            ("float16", "big", 1e-9, &[0, 0]),
            ("float16", "big", 0.0, &[0, 0]),
            ("bfloat16", "big", 1.0, &[0x3f, 0x80]),
            ("bfloat16", "little", 0.1, &[0xcd, 0x3d]),
        ];
        for (dtype, endianness, value, expected) in table {
            assert_eq!(Numbers { dtype, endianness }.write(&[value]), expected, "{value} as {dtype}, {endianness}");
        }
    }
}
