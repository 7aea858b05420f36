//! INQUIRY and the vital product data pages (SPC-5 section 6.7, SBC-4 section 6.6).

use super::{Cdb, Lun, Outcome, Sense, truncated};
use crate::bytes::{be16, put};
use crate::config::Designator;

/// INQUIRY to a LUN that exists.
pub(super) fn execute(lun: &Lun, cdb: &Cdb) -> Outcome {
    let allocation = usize::from(be16(cdb, 3));
    let (vital, page) = (cdb[1] & 1 != 0, cdb[2]);
    if cdb[1] & 2 != 0 || (!vital && page != 0) {
        return Err(Sense::INVALID_FIELD);
    }
    let data = if vital {
        vital_product_data(lun, page)?
    } else {
        standard(lun.config.device_type)
    };
    Ok(truncated(data, allocation))
}

/// INQUIRY to a LUN that does not exist: peripheral qualifier 3, device type 1Fh.
pub(super) fn absent(cdb: &Cdb) -> Outcome {
    if cdb[1] & 1 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    Ok(truncated(standard(0x7f), usize::from(be16(cdb, 3))))
}

fn standard(peripheral: u8) -> Vec<u8> {
    let mut data = vec![0; 96];
    // Version SPC-4, response data format 2, HISUP; CmdQue.
    put(&mut data, 0, &[peripheral, 0, 0x06, 0x12, 91, 0, 0, 0x02]);
    put(&mut data, 8, b"TESTTGT In-memory disk  1   ");
    // Version descriptors: SAM-5, iSCSI, SPC-4, SBC-3.
    put(
        &mut data,
        58,
        &[0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0],
    );
    data
}

fn vital_product_data(lun: &Lun, page: u8) -> Result<Vec<u8>, Sense> {
    if !pages(lun).contains(&page) {
        return Err(Sense::INVALID_FIELD);
    }
    let body = match page {
        0x00 => pages(lun),
        0x80 => serial(lun).into_bytes(),
        0x83 => designators(lun),
        0xb0 => block_limits(lun),
        0xb1 => characteristics(lun),
        _ => provisioning(lun),
    };
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    Ok([&[lun.config.device_type, page], &length[..], &body].concat())
}

fn pages(lun: &Lun) -> Vec<u8> {
    let mut pages = vec![0x00, 0x80, 0x83];
    if lun.is_block_device() {
        pages.extend([0xb0, 0xb1, 0xb2]);
    }
    pages.retain(|page| !lun.config.refused_vpd_pages.contains(page));
    pages
}

fn serial(lun: &Lun) -> String {
    lun.config
        .serial
        .clone()
        .unwrap_or_else(|| format!("TT{:08}", lun.number))
}

fn designators(lun: &Lun) -> Vec<u8> {
    let own = || {
        // NAA 6, IEEE registered extended, of an OUI nobody has.
        let bytes = [
            &[0x60, 0, 0, 0, 0, 0, 0, 1][..],
            &lun.default_identity.to_be_bytes(),
        ];
        vec![Designator {
            code_set: 1,
            association: 0,
            kind: 3,
            bytes: bytes.concat(),
        }]
    };
    let list = lun.config.designators.clone().unwrap_or_else(own);
    list.iter().flat_map(designator).collect()
}

fn designator(designator: &Designator) -> Vec<u8> {
    let length = u8::try_from(designator.bytes.len()).unwrap_or(u8::MAX);
    // Protocol identifier 5 is iSCSI; PIV says it is meant, which is so for ports and devices.
    let piv = if designator.association == 0 { 0 } else { 0x80 };
    let header = [
        0x50 | designator.code_set & 0x0f,
        piv | designator.association << 4 & 0x30 | designator.kind & 0x0f,
        0,
        length,
    ];
    header
        .into_iter()
        .chain(designator.bytes.iter().copied().take(usize::from(length)))
        .collect()
}

fn block_limits(lun: &Lun) -> Vec<u8> {
    let limits = &lun.config.limits;
    let thin = lun.config.thin;
    let unmaps = thin.is_some_and(|thin| thin.unmap);
    let aligned = limits.unmap_alignment_blocks.filter(|_| unmaps);
    let when = |on: bool, value: u32| if on { value } else { 0 };
    let mut body = vec![0; 60];
    put(
        &mut body,
        0,
        &[
            u8::from(limits.write_same_non_zero),
            limits.max_compare_and_write_blocks,
        ],
    );
    put(
        &mut body,
        2,
        &limits.optimal_granularity_blocks.to_be_bytes(),
    );
    let words = [
        limits.max_transfer_blocks,
        limits.optimal_transfer_blocks,
        0,
        when(unmaps, limits.max_unmap_blocks),
        when(unmaps, limits.max_unmap_descriptors),
        when(thin.is_some(), limits.unmap_granularity_blocks),
        aligned.map_or(0, |blocks| 0x8000_0000 | blocks),
    ];
    for (at, word) in words.iter().enumerate() {
        put(&mut body, 4 + at * 4, &word.to_be_bytes());
    }
    put(&mut body, 32, &limits.max_write_same_blocks.to_be_bytes());
    body
}

fn characteristics(lun: &Lun) -> Vec<u8> {
    let mut body = vec![0; 60];
    put(&mut body, 0, &lun.config.rotation_rate.to_be_bytes());
    body
}

fn provisioning(lun: &Lun) -> Vec<u8> {
    let Some(thin) = lun.config.thin else {
        return vec![0; 4];
    };
    let bit = |on: bool, mask: u8| if on { mask } else { 0 };
    let flags = bit(thin.unmap, 0x80)
        | bit(thin.write_same, 0x40)
        | bit(thin.write_same_10, 0x20)
        | bit(thin.reads_zeros, 0x04);
    vec![0, flags, 2, 0]
}

#[cfg(test)]
mod tests {
    use super::super::lun_for_tests;
    use super::*;
    use crate::config::{LunConfig, Thin};

    #[test]
    fn every_listed_page_exists_and_has_the_length_it_claims() {
        let lun = lun_for_tests(LunConfig {
            thin: Some(Thin::default()),
            ..LunConfig::default()
        });
        for page in pages(&lun) {
            let data = vital_product_data(&lun, page).unwrap();
            assert_eq!(
                usize::from(be16(&data, 2)),
                data.len() - 4,
                "page {page:02x}"
            );
            assert_eq!(data[1], page);
        }
    }

    #[test]
    fn refused_pages_are_neither_listed_nor_served() {
        let config = LunConfig {
            refused_vpd_pages: vec![0xb0],
            ..LunConfig::default()
        };
        let lun = lun_for_tests(config);
        assert!(!vital_product_data(&lun, 0).unwrap()[4..].contains(&0xb0));
        assert_eq!(vital_product_data(&lun, 0xb0), Err(Sense::INVALID_FIELD));
    }

    #[test]
    fn keeps_the_padding_of_a_serial() {
        let config = LunConfig {
            serial: Some("  x ".into()),
            ..LunConfig::default()
        };
        let data = vital_product_data(&lun_for_tests(config), 0x80).unwrap();
        assert_eq!(data, [0, 0x80, 0, 4, b' ', b' ', b'x', b' ']);
    }
}
