# The memory functions the compiler calls. They run in ring 3, with SSE2.
# Where source and destination may overlap, bytes are loaded before a store can reach them.

.section .text.memory_functions, "ax"

.global memcpy
memcpy:
    mov rax, rdi
copy_up:
    cmp rdx, 16
    jbe copy_few
    cmp rdx, 512
    ja 3f
    movups xmm0, [rsi + rdx - 16]
    lea rcx, [rdi + rdx - 16]
2:  movups xmm1, [rsi]
    movups [rdi], xmm1
    add rsi, 16
    add rdi, 16
    cmp rdi, rcx
    jb 2b
    movups [rcx], xmm0
    ret
3:  mov rcx, rdx
    rep movsb
    ret

.global memmove
memmove:
    mov rax, rdi
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jae copy_up
    cmp rdx, 16
    jbe copy_few
    movups xmm0, [rsi]
2:  movups xmm1, [rsi + rdx - 16]
    movups [rdi + rdx - 16], xmm1
    sub rdx, 16
    cmp rdx, 16
    ja 2b
    movups [rdi], xmm0
    ret

# 0 to 16 bytes, as two pieces that may cover each other (three below 4 bytes).
copy_few:
    cmp edx, 8
    jae 4f
    cmp edx, 4
    jae 3f
    test edx, edx
    jz 2f
    mov r10d, edx
    shr r10d, 1
    mov cl, [rsi]
    mov r8b, [rsi + r10]
    mov r9b, [rsi + rdx - 1]
    mov [rdi], cl
    mov [rdi + r10], r8b
    mov [rdi + rdx - 1], r9b
2:  ret
3:  mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
4:  mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret

.global memset
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

.global memcmp
.global bcmp
memcmp:
bcmp:
    xor ecx, ecx
2:  lea r8, [rcx + 8]
    cmp r8, rdx
    ja 3f
    mov rax, [rdi + rcx]
    mov r9, [rsi + rcx]
    mov rcx, r8
    cmp rax, r9
    je 2b
    bswap rax
    bswap r9
    cmp rax, r9
    sbb eax, eax
    or eax, 1
    ret
3:  cmp rcx, rdx
    jae 4f
    movzx eax, byte ptr [rdi + rcx]
    movzx r9d, byte ptr [rsi + rcx]
    inc rcx
    sub eax, r9d
    jz 3b
    ret
4:  xor eax, eax
    ret
