//! Rows of a table by id; the gradient adds rows back.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::slices;

struct Embedding {
    ids: Vec<u32>,
    shape: Vec<usize>,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, weight: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        if let Some(id) = self.ids.iter().find(|&&id| id as usize >= rows) {
            candle_core::bail!("id {id} is outside the vocabulary of {rows}");
        }
        let weight = slices::of_storage(weight, layout)?;
        let mut y = vec![0f32; self.ids.len() * width];
        y.par_chunks_mut(width).zip(&self.ids).with_min_len(64).for_each(|(y, &id)| {
            y.copy_from_slice(&weight[id as usize * width..][..width]);
        });
        Ok((CpuStorage::F32(y), self.shape.clone().into()))
    }

    fn bwd(&self, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = weight.dims2()?;
        slices::read([grad], |[grad]| {
            let mut dw = vec![0f32; weight.elem_count()];
            for (&id, grad) in self.ids.iter().zip(grad.chunks_exact(width)) {
                let row = &mut dw[id as usize * width..][..width];
                row.iter_mut().zip(grad).for_each(|(sum, grad)| *sum += grad);
            }
            Ok(Some(slices::tensor_like(dw, weight)?))
        })
    }
}

/// See [`super::embedding`].
pub(super) fn embedding(ids: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mut shape = ids.dims().to_vec();
    shape.push(weight.dim(1)?);
    let ids = ids.flatten_all()?.to_dtype(candle_core::DType::U32)?.to_vec1()?;
    weight.contiguous()?.apply_op1(Embedding { ids, shape })
}
